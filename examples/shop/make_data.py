"""Write the shop's data: a quarter of an invented online shop, the same on every machine.

Run it in this folder with ``python make_data.py [FOLDER]``; without FOLDER it rewrites ``data``.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

SEED = 20250101
START = datetime(2025, 1, 1)
DAYS = 90

REGIONS = ("north", "south", "east", "west")
CHANNELS = ("direct", "email", "search", "social")
DEVICES = ("desktop", "phone", "tablet")
CATEGORIES = {
    "coffee": ("Espresso", "Filter Roast", "Decaf", "Cold Brew", "House Blend"),
    "tea": ("Green Tea", "Black Tea", "Rooibos", "Peppermint"),
    "brewing": ("Moka Pot", "Pour-Over Set", "French Press", "Grinder", "Kettle"),
    "tableware": ("Mug", "Saucer", "Carafe", "Travel Cup"),
}
PRICES = {"coffee": (8, 18), "tea": (4, 12), "brewing": (25, 140), "tableware": (6, 35)}

Row = dict[str, Any]


def products(dice: random.Random) -> list[Row]:
    """Return every product in two sizes, with what it sells for and what it costs."""
    rows = []
    for category, names in CATEGORIES.items():
        for name in names:
            price = dice.randint(*PRICES[category])
            for size, factor in (("small", 1.0), ("large", 1.8)):
                sells = round(price * factor + 0.9, 2)
                rows.append(
                    {
                        "product_id": len(rows) + 1,
                        "name": f"{name}, {size}",
                        "category": category,
                        "price": sells,
                        "unit_cost": round(sells * dice.uniform(0.35, 0.7), 2),
                    }
                )
    return rows


def customers(dice: random.Random) -> list[Row]:
    """Return the customers; one in twelve has not told us where they live."""
    return [
        {
            "customer_id": number,
            "email": f"customer{number}@shop.example",
            "region": "" if number % 12 == 0 else dice.choice(REGIONS),
            "signed_up": (START - timedelta(days=dice.randint(0, 700))).date().isoformat(),
            "newsletter": "true" if dice.random() < 0.4 else "false",
        }
        for number in range(1, 121)
    ]


def orders(dice: random.Random) -> list[Row]:
    """Return the orders; a fifth of the customers makes half of them."""
    rows = []
    for number in range(1, 421):
        customer = dice.randint(1, 24) if dice.random() < 0.5 else dice.randint(25, 120)
        minute = dice.randrange(DAYS * 24 * 60)
        rows.append(
            {
                "order_id": 1000 + number,
                "customer_id": customer,
                "ordered_at": (START + timedelta(minutes=minute)).isoformat(sep=" "),
                "status": dice.choices(("paid", "shipped", "cancelled"), (20, 70, 10))[0],
                "discount": dice.choice((0, 0, 0, 0.05, 0.1)),
            }
        )
    return rows


def order_items(dice: random.Random, orders: list[Row], products: list[Row]) -> list[Row]:
    """Return one to four different products for every order."""
    return [
        {
            "order_id": order["order_id"],
            "product_id": product["product_id"],
            "quantity": dice.choices((1, 2, 3), (70, 22, 8))[0],
        }
        for order in orders
        for product in dice.sample(products, dice.choices((1, 2, 3, 4), (35, 35, 20, 10))[0])
    ]


def web_sessions(dice: random.Random, orders: list[Row]) -> list[Row]:
    """Return a session for half of the orders, and as many that ended without one."""
    rows = []
    for order in orders[::2]:
        for bought in (order, None):
            minute = dice.randrange(DAYS * 24 * 60)
            started = (START + timedelta(minutes=minute)).isoformat(sep=" ")
            rows.append(
                {
                    "session_id": f"s{len(rows) + 1:04}",
                    "started_at": bought["ordered_at"] if bought else started,
                    "channel": dice.choice(CHANNELS),
                    "device": dice.choices(DEVICES, (45, 45, 10))[0],
                    "pages": dice.randint(4, 20) if bought else dice.randint(1, 9),
                    "order_id": bought["order_id"] if bought else None,
                }
            )
    return rows


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write the rows with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[Row]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: list[Row]) -> None:
    """Write the rows as Parquet, with the types that DuckDB sees in their JSON."""
    lines = path.with_suffix(".jsonl")
    write_jsonl(lines, rows)
    with duckdb.connect() as connection:
        connection.read_json(str(lines)).write_parquet(str(path))
    lines.unlink()


def main(folder: Path) -> None:
    """Write the five files of the shop into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(SEED)
    catalogue, placed = products(dice), orders(dice)
    write_parquet(folder / "products.parquet", catalogue)
    write_csv(folder / "customers.csv", customers(dice))
    write_csv(folder / "orders.csv", placed)
    write_csv(folder / "order_items.csv", order_items(dice, placed, catalogue))
    write_jsonl(folder / "web_sessions.jsonl", web_sessions(dice, placed))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
