"""What the gaps between tokens have to do with the batch of the step that ended them, with polars.

usage: bench export DIR --parquet && python batches.py DIR
"""

import sys
from pathlib import Path

import polars as pl


def itl_by_batch(folder: Path) -> pl.DataFrame:
    """The measured gaps, by point and by whether the step also had a prefill."""
    run = ["name", "point", "repeat"]
    tokens = pl.scan_parquet(folder / "tokens.parquet").filter(pl.col("itl_s").is_not_null())
    steps = pl.scan_parquet(folder / "steps.parquet").select(*run, "step", "prefill_tokens", "running", "step_s")
    joined = tokens.filter(pl.col("phase") == "measure").join(steps, on=[*run, "step"], how="left")
    return (
        joined.group_by("name", "point", (pl.col("prefill_tokens") > 0).alias("beside_a_prefill"))
        .agg(
            pl.len().alias("gaps"),
            pl.col("itl_s").median().alias("p50_itl_s"),
            pl.col("itl_s").quantile(0.99, interpolation="nearest").alias("p99_itl_s"),
            pl.col("step_s").mean().alias("avg_step_s"),
            pl.col("running").mean().alias("avg_running"),
        )
        .sort("name", "point", "beside_a_prefill")
        .collect()
    )


if __name__ == "__main__":
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160):
        print(itl_by_batch(Path(sys.argv[1])))
