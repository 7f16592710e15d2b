"""A small Supabase on loopback, without Docker: real PostgreSQL and Deno, stand-ins for the rest."""
