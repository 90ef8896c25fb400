"""What an operator does: doctor, status, lineage, reproduction, tasks for annotators."""
