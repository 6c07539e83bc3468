"""The algorithms, one file each: generators that ask for sums and return what a pooled analysis would have given."""
