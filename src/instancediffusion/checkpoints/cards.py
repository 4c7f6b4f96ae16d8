"""Cards: the models that have a name, with where they are, their hash and their licence."""
