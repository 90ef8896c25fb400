"""Show me: tables, pictures and the HTML report of what was measured."""
