"""Training: recipes, patches made on the fly, and a loop that resumes exactly where it stopped."""
