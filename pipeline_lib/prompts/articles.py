"""The English article of a name, by how its first word sounds."""

import re
import unicodedata

# What begins with a vowel's letter and sounds like `you` or `won`: unicorn (not unidentified), European, one-armed.
CONSONANT_SOUND = re.compile(
    r"uni(?![ndmr])|unidirect|unimod|eu|ew|once\b|one(\b|s)|oui|u[bcfhjkqrstv]?[aeiou]|ukr|ugand|(ufo|uk|usb|uv)\b|u$"
)
# What begins with another letter and sounds like a vowel: hour, heir, eight, what is spelled letter by letter (HDMI).
VOWEL_SOUND = re.compile(
    r"hour(?!i)|heir|honest|hono|hors\b|8|(11|18)(\d{3})*(?!\d)|y[bdlptv][^aeiou]|yttri|[fhlmnrsx](\d|$)"
    r"|f[^aeioujlry]|h[^aeiouy]|l[^aeiouhly]|m[^aeiouncry]|n[^aeiouy]|r[^aeiouhwy]|s[dx]|x[^aeiouhmy]"
)
INITIALS = re.compile(r"[A-Z]{2,3}s?\d*")  # SUV, LED, MRI; longer ones are mostly read as a word


def with_article(name: str) -> str:
    """`a sneaker`, `an ankle boot`, `a unicycle`, `an hourglass`, `an X-ray`, `an 8-track`."""
    plain = unicodedata.normalize("NFD", name)  # accents stand behind their letters
    found = re.search(r"[^\W_][^\W_]*", "".join(c for c in plain if not unicodedata.combining(c)))
    word = found.group() if found else ""
    if INITIALS.fullmatch(word):
        word = word[0]
    return f"{'an' if _sounds_like_a_vowel(word.lower()) else 'a'} {name}"


def _sounds_like_a_vowel(word: str) -> bool:
    if word[:1] in tuple("aeiou"):
        return not CONSONANT_SOUND.match(word)
    return bool(VOWEL_SOUND.match(word))
