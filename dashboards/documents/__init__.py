"""What pages, reports and programs are told, as plain values."""
