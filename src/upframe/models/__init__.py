"""Networks, their weights, and everything known about them."""
