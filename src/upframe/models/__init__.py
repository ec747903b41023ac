"""Networks, their weights, and facts about them."""
