"""Icons of our own, for what the art sets lack: flat shapes with a lit and a shaded side, in the style of the sets."""

from typing import Any

DRAWINGS: dict[str, dict[str, Any]] = {
    "table": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#7a4a2a" d="M32 50h9v46h-9zM87 50h9v46h-9z"/>'
        '<path fill="#a2683c" d="M14 54h12v60H14zM102 54h12v60h-12z"/>'
        '<path fill="#8a5530" d="M20 54h6v60h-6zM108 54h6v60h-6z"/>'
        '<path fill="#d79b63" d="M6 44 26 24h76l20 20z"/>'
        '<path fill="#c1844e" d="M14 40h100l4 4H10zM22 32h84l2 2H20z"/>'
        '<rect width="120" height="12" x="4" y="44" fill="#9a6238" rx="3"/>'
        '<rect width="120" height="4" x="4" y="44" fill="#b97b48" rx="2"/>',
    },
    "bench": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#3e464c" d="M16 26h8v82h-8zM104 26h8v82h-8z"/>'
        '<path fill="#3e464c" d="M6 108V76h8v32zM114 108V76h8v32z"/>'
        '<rect width="116" height="12" x="6" y="28" fill="#b9773f" rx="4"/>'
        '<rect width="116" height="12" x="6" y="44" fill="#a96936" rx="4"/>'
        '<path fill="#c78a52" d="M12 64h104l8 10H4z"/>'
        '<rect width="124" height="9" x="2" y="73" fill="#8f5729" rx="3"/>'
        '<path fill="#59636b" d="M2 58h22v6H2zM104 58h22v6h-22z"/>'
        '<path fill="#59636b" d="M2 62h6v14H2zM120 62h6v14h-6z"/>',
    },
    "igloo": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#dcedf9" d="M6 106C4 56 32 20 66 20s58 36 56 86z"/>'
        '<path fill="#b7d5ec" d="M66 20c34 0 58 36 56 86h-18c4-44-12-78-38-86z"/>'
        '<path fill="none" stroke="#86b0d2" stroke-width="3" d="M8 82q58-12 113 0M17 56q48-12 95 0'
        "M35 34q30-8 60 0M66 21v10M48 32l-5 20M86 32l6 20M30 54l-6 25M66 50v26M102 54l6 25M16 82l-2 24M112 82l2 24"
        'M98 78l1 28"/>'
        '<path fill="#c4dff2" stroke="#86b0d2" stroke-width="3" d="M24 106V84a24 22 0 0 1 48 0v22z"/>'
        '<path fill="#2d4a66" d="M33 106V86a15 15 0 0 1 30 0v20z"/>'
        '<path fill="#f6fbff" d="M22 44c6-8 14-14 22-17-3 6-12 11-22 17z"/>',
    },
    "iceberg": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#e8f7fd" d="M6 92 30 44l14 12 24-42 22 40 12-10 20 48z"/>'
        '<path fill="#b4e0f1" d="M68 14 58 60l16 32h-30l0-36zM102 44l-8 24 8 24h20z"/>'
        '<path fill="#8accea" d="M68 14l22 40-6 38H74L58 60zM30 44l-4 28 8 20H20l-6-16z"/>'
        '<path fill="#4aa0d0" d="M2 92h124l-18 22-26-5-22 9-24-7-20 2z"/>'
        '<path fill="#7cc3e6" d="M2 92h124l-4 6H8z"/>',
    },
    "vase": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#2f74dc" d="M44 8h40c5 0 6 7 2 11-8 8-7 16 2 24 22 18 24 52 2 77H38C16 95 18 61 40 43'
        'c9-8 10-16 2-24-4-4-3-11 2-11z"/>'
        '<path fill="#1f57b2" d="M72 8h12c5 0 6 7 2 11-8 8-7 16 2 24 22 18 24 52 2 77H66c24-25 24-58 4-77-7-8-6-16 0-24'
        ' 4-4 5-11 2-11z"/>'
        '<path fill="#16407f" d="M45 10h38c4 0 4 5 1 6-10 3-30 3-40 0-3-1-3-6 1-6z"/>'
        '<path fill="#7fb0f5" d="M41 52c-12 12-15 30-9 46 2 5 7 3 6-2-3-14-1-28 8-40 3-4-1-8-5-4z"/>'
        '<path fill="none" stroke="#f2f4f7" stroke-width="5" d="M25 82l10-9 11 9 12-9 12 9 12-9 11 9 10-9"/>',
    },
    "round table": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#7d4b28" d="M34 112c0-9 12-15 30-15s30 6 30 15z"/>'
        '<path fill="#8f5a33" d="M56 50h16v52H56z"/><path fill="#7d4b28" d="M66 50h6v52h-6z"/>'
        '<path fill="#9c6539" d="M3 38v8c0 9 27 17 61 17s61-8 61-17v-8z"/>'
        '<ellipse cx="64" cy="38" fill="#cf9460" rx="61" ry="16"/>'
        '<ellipse cx="58" cy="35" fill="#dba876" rx="40" ry="8"/>',
    },
    "slatted bench": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#3a4147" d="M16 26h9v86h-9zM103 26h9v86h-9z"/>'
        '<path fill="#2f7a4c" d="M6 32h116v11H6zM6 49h116v11H6z"/>'
        '<path fill="#3d9160" d="M4 70h120v10H4z"/><path fill="#26633d" d="M4 80h120v6H4z"/>',
    },
    "snow igloo": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#eaf5fc" d="M6 106C6 58 30 24 64 24s58 34 58 82z"/>'
        '<path fill="#cfe4f3" d="M88 30c22 12 34 42 34 76h-18c0-36-4-60-16-76z"/>'
        '<path fill="none" stroke="#9fc4de" stroke-width="3" d="M10 80h34M84 80h34M19 54h90M64 26v28M40 34v20M88 34v20'
        'M30 54v26M98 54v26M64 54v12"/>'
        '<path fill="#b9d6ea" d="M40 106V88c0-15 10-26 24-26s24 11 24 26v18z"/>'
        '<path fill="#33506c" d="M48 106V90c0-11 7-19 16-19s16 8 16 19v16z"/>',
    },
    "peaked iceberg": {
        "width": 128,
        "height": 128,
        "body": '<path fill="#f3fbff" d="M10 92 38 36l14 8L68 8l20 34 12-8 20 58z"/>'
        '<path fill="#c3e4f4" d="M68 8l20 34 12-8 20 58H74L60 52z"/>'
        '<path fill="#9fd2ec" d="M88 42l-6 50H70l-4-30zM38 36l6 30-8 26h-8z"/>'
        '<path fill="#58a9d8" d="M2 92h124c-4 12-14 16-24 12-10 8-22 8-32 1-10 8-24 7-32-1-14 5-30 2-36-12z"/>',
    },
}
"""Name -> an icon in Iconify's JSON form, to be used where the art set has none of that name."""
