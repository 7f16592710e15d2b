"""A stand-in for Supabase Realtime: broadcast on public and private channels, and nothing else."""
