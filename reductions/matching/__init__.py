"""Who merges into whom: one file for each rule, and `merge`, which applies any of them."""
