"""The rows of a delivery that are not accepted, counted by reason."""

from __future__ import annotations

from collections import Counter

from alignment.errors import DataError
from alignment.preferences.rows import DISPUTED, DROPPED, REASONS, RowError


class Refusals:
    """Counts rows that are not accepted, and remembers where each reason was met first."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, error: RowError, file: str, line: int) -> None:
        """Count one row."""
        self.reasons[error.reason] += 1
        self._first.setdefault(error.reason, f"{file}:{line}, field {error.field}")

    @property
    def dropped(self) -> int:
        """Number of sound rows that are left out on purpose."""
        return sum(self.reasons[reason] for reason in DROPPED)

    def check_share(self, read: int, limit: float, where: str) -> None:
        """Refuse everything where too many rows are bad.

        Args:
            read: number of rows.
            limit: largest share of bad ones, `intake.max_quarantine`.

        Raises:
            DataError: the share is larger; names the reasons and the first row of each.
        """
        bad = self.reasons.total() - sum(self.reasons[reason] for reason in DROPPED | DISPUTED)
        share = bad / max(read, 1)
        if share > limit:
            raise DataError(
                f"the delivery is refused: {bad} of {read} rows are bad "
                f"({share:.1%}, at most {limit:.1%} allowed): {self.summary()}",
                where=where,
                remedy=self._remedy(),
            )

    def summary(self) -> str:
        """The commonest reasons, with the first row of each."""
        return "; ".join(
            f"{count} × {REASONS[reason]} (first: {self._first[reason]})"
            for reason, count in self.reasons.most_common(5)
        )

    def _remedy(self) -> str:
        if self.reasons.most_common(1)[0][0] == "unknown_domain":
            return "name its domain: --domain safety (or intake.domain, intake.domains)"
        return (
            "correct the rows and send it again, force its format (intake.format, --format), or "
            "raise intake.max_quarantine; a refused file of the inbox is read again when the file "
            "or intake's settings change"
        )
