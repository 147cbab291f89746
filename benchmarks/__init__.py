"""Measurements that take longer than a test: each module appends rows to `results/`, tables are made from the rows."""
