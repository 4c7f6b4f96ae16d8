"""The icon sets that the built-in world takes its sprites from, each pinned to one packed file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArtSet:
    """One icon set, as an npm package of the Iconify project packs it.

    Attributes:
        name: the set's name in a sprite's key, "name:icon".
        package: the npm package; empty for our own icons, which are part of this one.
        version: the one version of it that is used.
        sha256: of the packed file.
        style: the word that captions may use for its sprites ("a flat drawing of a dog").
        credit: whose work it is, and its licence.
    """

    name: str
    package: str
    version: str
    sha256: str
    style: str
    credit: str

    @property
    def pinned(self) -> str:
        """The package and its version, as npm writes them."""
        return f"{self.package}@{self.version}"


NOTO = ArtSet(
    "noto",
    "@iconify-json/noto",
    "1.2.9",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "cartoon",
    "Noto Emoji, Copyright Google LLC and contributors, Apache License 2.0",
)
"""The set of every sprite whose key names none; our own first icons, made to look like it, belong to it."""

OWN = ArtSet("own", "", "", "", "flat", "this project, Apache License 2.0")
"""Further icons of our own."""

ART_SETS: dict[str, ArtSet] = {
    one.name: one
    for one in (
        NOTO,
        OWN,
        ArtSet(
            "noto-v1",
            "@iconify-json/noto-v1",
            "1.2.5",
            "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
            "cartoon",
            "Noto Emoji before 2017, Copyright Google LLC and contributors, Apache License 2.0",
        ),
        ArtSet(
            "fluent-flat",
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
            "flat",
            "Fluent Emoji, Copyright Microsoft Corporation, MIT License",
        ),
        ArtSet(
            "fluent",
            "@iconify-json/fluent-emoji",
            "1.2.7",
            "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
            "glossy",
            "Fluent Emoji, Copyright Microsoft Corporation, MIT License",
        ),
    )
}
"""Name -> set."""

STYLES: tuple[str, ...] = tuple(dict.fromkeys(one.style for one in ART_SETS.values()))
"""Every word for a style."""
