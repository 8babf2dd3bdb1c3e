"""The results: values of rounds, statistics, tables, JSON and plots."""
