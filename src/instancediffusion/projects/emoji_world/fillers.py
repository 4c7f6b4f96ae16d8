"""Words that people put round what they mean."""

EVERYDAY_TITLES = ("a photo of", "a view of", "an illustration of", "a scene of", "there is")
"""How everyday prompts begin."""

OPENINGS = (
    *("a photo of", "a picture of", "an image of", "a full view of", "a view of", "a drawing of", "an illustration of"),
    *("there is", "a close up of", "a portrait of"),
)
PRAISE = ("lovely", "nice", "beautiful", "pretty", "wonderful", "simple")
ANIMAL_PRAISE = ("cute", "adorable", "friendly", "happy", "sweet", "playful", "young")
POSES = ("sitting", "standing", "standing there", "standing still", "sitting down", "posing", "resting")
LARGE, SMALL = ("big", "large", "huge"), ("small", "little", "tiny")
SIDES = ("facing {}", "looking {}", "looking to the {}", "facing to the {}", "turned to the {}", "facing the {}")
