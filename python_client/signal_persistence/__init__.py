"""Durable trading signals on Supabase."""
