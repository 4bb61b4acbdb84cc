"""Channels of a sequence, with a colour where the name tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scopestream.dimensions import Channel

# Colours of the light that is seen, by what people call the dye or the filter.
_COLORS_BY_WORD = {
    "#0000ff": ("dapi", "hoechst", "bfp", "ebfp", "pacific blue", "alexa 405", "af405"),
    "#00ffff": ("cfp", "ecfp", "cerulean", "turquoise", "mturquoise"),
    "#00ff00": ("gfp", "egfp", "fitc", "alexa 488", "af488", "gcamp", "fluo-4", "calcein", "neongreen", "mneongreen"),
    "#ffff00": ("yfp", "eyfp", "venus", "citrine"),
    "#ff8000": ("cy3", "tritc", "tmr", "dsred", "alexa 555", "af555", "rhodamine", "orange"),
    "#ff0000": ("rfp", "mcherry", "texas red", "txred", "alexa 594", "af594", "mscarlet", "scarlet", "tdtomato"),
    "#ff00ff": ("cy5", "cy5.5", "cy7", "alexa 647", "af647", "far red", "farred", "irfp", "sir", "draq5"),
    "#ffffff": ("bf", "brightfield", "bright field", "dic", "phase", "ph", "trans", "transmitted", "tl"),
}
_COLOR_BY_WORD = {word: color for color, words in _COLORS_BY_WORD.items() for word in words}
# (longest, colour): what laser lines and LEDs of these wavelengths, in nm, make dyes send out.
_COLORS_BY_EXCITATION = ((425, "#0000ff"), (465, "#00ffff"), (500, "#00ff00"), (535, "#ffff00"), (570, "#ff8000"),
                         (615, "#ff0000"), (800, "#ff00ff"))  # fmt: skip
_WAVELENGTH = re.compile(r"(?<!\d)(3[5-9]\d|[4-7]\d\d)(?!\d)")


def color_of(name: str) -> str | None:
    """The colour ("#rrggbb") that a channel of this name is usually shown in; None when the name does not tell."""
    words = " ".join(re.split(r"[\s_/|()-]+", name.lower()))
    if words in _COLOR_BY_WORD:
        return _COLOR_BY_WORD[words]
    # The longest first: "far red" before "red".
    for word in sorted(_COLOR_BY_WORD, key=len, reverse=True):
        if re.search(rf"(?<![a-z0-9]){re.escape(word.replace('-', ' '))}(?![a-z0-9])", words):
            return _COLOR_BY_WORD[word]
    if found := _WAVELENGTH.search(words):
        return next((color for longest, color in _COLORS_BY_EXCITATION if int(found[1]) <= longest), None)
    return None


def make_channels(configs: Iterable[tuple[str, str]]) -> tuple[Channel, ...]:
    """One channel for each (group, preset). A preset of several groups is named with its group."""
    pairs = list(configs)
    names = [_without_controls(config) for _, config in pairs]
    channels, used = [], set[str]()
    for (group, _), plain in zip(pairs, names, strict=True):
        name = plain if names.count(plain) == 1 else f"{plain} ({_without_controls(group)})"
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = f"{name} {number}"
        used.add(unique)
        channels.append(Channel(name=unique, color=color_of(plain)))
    return tuple(channels)


def _without_controls(text: str) -> str:
    """As a name may be: at most 200 characters, none of them a control."""
    return "".join(c if c.isprintable() else "_" for c in text).strip()[:200] or "unnamed"
