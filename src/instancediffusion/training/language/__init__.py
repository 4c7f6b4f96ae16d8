"""What a text model learns from: everyday words, what they mean to a larger model, and the world's grammar."""
