"""The languages that texts can be told apart by: those of py3langid 0.4, which need not be installed where a grid is
read.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdray.spec.errors import InputError

CODES = (
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr "
    "fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko "
    "ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru "
    "rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo "
    "yue zh zu zxx"
)
IDENTIFIED = frozenset(CODES.split())


def require_identified(languages: Sequence[str], field: str) -> None:
    """Refuse a language that texts are not told apart by. A single one is every text's, and may be any.

    Raises:
        InputError: of several one is unknown.
    """
    unknown = [language for language in languages if language not in IDENTIFIED]
    if unknown and len(languages) > 1:
        raise InputError(field, ", ".join(unknown), f"known: {', '.join(sorted(IDENTIFIED))}")
