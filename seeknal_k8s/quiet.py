"""What keeps Seeknal's libraries from starting threads at import, which no fork would survive."""

from __future__ import annotations

QUIET_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""Environment variables to set before the import, and to take back in every fork."""
