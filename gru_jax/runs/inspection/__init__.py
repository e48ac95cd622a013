"""A run's network opened up: numbers, pictures, and a page of them."""
