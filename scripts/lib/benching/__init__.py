"""What scripts/bench is made of: processes and mounts, measuring, the cases, and what is told of them."""
