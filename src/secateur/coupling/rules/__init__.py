"""How labels pass each operator."""
