"""Projects that use the method, which knows none of them: a drawn world, its judge, a study of overlaps.

`emoji_world`: pictures composed of sprites, with exact truth; what `mini` learned from.
`emoji_judge`: the network that says what such pictures show, and the evaluation of models by it.
`overlap_study`: what overlaps do to a model, and which of its parts decides who is in front.
"""
