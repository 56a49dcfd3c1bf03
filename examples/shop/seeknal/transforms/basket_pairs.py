"""What is bought together: pairs of products that share enough baskets."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pandas as pd
from seeknal.pipeline.decorators import transform


@transform(
    name="basket_pairs",
    inputs=["transform.order_lines", "source.products"],
    tags=["catalogue"],
    min_baskets=3,
)
def basket_pairs(ctx: Any) -> pd.DataFrame:
    """Return every pair of products found in at least ``min_baskets`` orders, commonest first."""
    lines = ctx.ref("transform.order_lines")
    names = ctx.ref("source.products").set_index("product_id")["name"]
    baskets = lines.groupby("order_id")["product_id"].apply(sorted)
    pairs = Counter(pair for basket in baskets for pair in combinations(basket, 2))
    rows = [
        {"product": names[one], "with_product": names[other], "baskets": count}
        for (one, other), count in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        if count >= ctx.get_param("min_baskets")
    ]
    return pd.DataFrame(rows, columns=["product", "with_product", "baskets"])
