"""The loop, its logs, and evaluation of what it leaves."""
