"""The answer normaliser of the VQA challenges' server (section 9), quirks included.

Its results are those of the official script: an empty prediction is right where the annotators said "a".
Golden numbers: tests/golden/metrics.json.
"""

from __future__ import annotations

import re
from functools import lru_cache

from spatial_textvqa.answers import clean

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # in this order; the colon is not one
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": 0} | {word: number for number, word in enumerate(_COUNTED)}
ARTICLES = ("a", "an", "the")
PERIOD = re.compile(r"\.(?!\d)")
DIGIT_COMMA = re.compile(r"\d,\d")

# The 120 words of the standard table. What is written without its apostrophe gets it back where it stood ...
_APOSTROPHES = """
ain't aren't can't couldn't could've didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't shouldn't should've somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't weren't we've what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't wouldn't would've y'all you'd you'll you're you've
"""
# ... and these are doubly contracted, or no rule: as they are written, and as they should be.
_OTHERS = """
Id've:I'd've I'dve:I'd've Im:I'm Ive:I've couldn'tve:couldn't've couldnt've:couldn't've hadn'tve:hadn't've
hadnt've:hadn't've he'dve:he'd've hed've:he'd've it'dve:it'd've itd've:it'd've let's:let's mightn'tve:mightn't've
mightnt've:mightn't've 'ow'sat:'ow's'at 'ows'at:'ow's'at ow's'at:'ow's'at she'dve:she'd've she's:she's
shed've:she'd've shouldn'tve:shouldn't've shouldnt've:shouldn't've somebody'd:somebodyd somebody'dve:somebody'd've
somebodyd've:somebody'd've someone'dve:someone'd've someoned've:someone'd've something'dve:something'd've
somethingd've:something'd've there'dve:there'd've thered've:there'd've they'dve:they'd've theyd've:they'd've
we'dve:we'd've wed've:we'd've who'dve:who'd've whod've:who'd've wouldn'tve:wouldn't've wouldnt've:wouldn't've
y'all'dve:y'all'd've y'alld've:y'all'd've y'allll:y'all'll yall'd've:y'all'd've yall'll:y'all'll you'dve:you'd've
youd've:you'd've
"""
CONTRACTIONS = {word.replace("'", ""): word for word in _APOSTROPHES.split()} | dict(
    pair.split(":") for pair in _OTHERS.split()
)


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """An answer as the server compares it: marks, number words, articles and contractions made alike."""
    text = clean(text).replace("\n", " ").replace("\t", " ").strip()
    return " ".join(_words(_without_marks(text)))


def _without_marks(text: str) -> str:
    out = text
    for mark in PUNCTUATION:
        # Looked up in the text as it was before the first mark was handled.
        if f"{mark} " in text or f" {mark}" in text or DIGIT_COMMA.search(text):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    return PERIOD.sub("", out, count=32)  # the official script hands a flag over as this count


def _words(text: str) -> list[str]:
    words = (str(NUMBERS.get(word, word)) for word in text.lower().split())
    return [CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES]
