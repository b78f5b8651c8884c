"""What is known of a backbone before a search: where merging may start, and what each block can spare."""
