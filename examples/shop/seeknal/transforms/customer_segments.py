"""Who our customers are: recency, frequency and value, each scored from 1 to 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seeknal.pipeline.decorators import transform

if TYPE_CHECKING:
    import pandas as pd

LOYAL = 10
LAPSED = 5


@transform(name="customer_segments", inputs=["transform.customer_summary"], tags=["features"])
def customer_segments(ctx: Any) -> pd.DataFrame:
    """Return every customer's three scores and the segment that follows from their sum."""
    customers = ctx.ref("transform.customer_summary")[
        ["customer_id", "orders", "revenue", "days_since_order"]
    ]
    customers = customers.sort_values("customer_id", ignore_index=True)
    customers["recency"] = quarter(-customers["days_since_order"])
    customers["frequency"] = quarter(customers["orders"])
    customers["value"] = quarter(customers["revenue"])
    score = customers[["recency", "frequency", "value"]].sum(axis="columns")
    customers["segment"] = score.map(segment)
    return customers


def quarter(values: pd.Series) -> pd.Series:
    """Return 1 for the lowest quarter of the values, up to 4 for the highest; ties share one."""
    share = values.rank(method="average", pct=True)
    return (share * 4).round().clip(1, 4).astype("int64")


def segment(score: int) -> str:
    """Return the name of the segment that a sum of scores, 3 to 12, belongs to."""
    if score >= LOYAL:
        return "loyal"
    return "lapsed" if score <= LAPSED else "regular"
