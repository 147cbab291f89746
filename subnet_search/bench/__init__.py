"""What an exported ensemble costs in each form in which it can run, beside the dense network in the same runtime."""

from subnet_search.bench.bench import FORMS, BenchConfig, BenchResult, bench, write_bench

__all__ = ["FORMS", "BenchConfig", "BenchResult", "bench", "write_bench"]
