"""How fast each backend takes frames, beside the raw limit of the same disk in the same run: `make bench`."""
