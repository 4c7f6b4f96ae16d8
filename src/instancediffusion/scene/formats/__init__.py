"""File formats of scenes, each as a pair of reading and writing."""
