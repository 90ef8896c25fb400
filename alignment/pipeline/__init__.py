"""What is to be done, and what is done already? Plan, ledger, fingerprints, decisions."""
