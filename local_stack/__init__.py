"""A small Supabase on loopback: real PostgreSQL and Deno, stand-ins for the rest; no Docker."""
