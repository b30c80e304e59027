"""Files: written completely or not at all, with a digest, and validated before use."""

from secateur.files.programs import program_writer, read_program
from secateur.files.records import Record, read_record, record_writer
from secateur.files.regular import check_regular, file_digest, read_bytes
from secateur.files.staging import Writer, bytes_writer, reading, text_writer, write_file, write_files
from secateur.files.tensors import digest_of, read_tensors, tensors_writer

__all__ = [
    "Record",
    "Writer",
    "bytes_writer",
    "check_regular",
    "digest_of",
    "file_digest",
    "program_writer",
    "read_bytes",
    "read_program",
    "read_record",
    "read_tensors",
    "reading",
    "record_writer",
    "tensors_writer",
    "text_writer",
    "write_file",
    "write_files",
]
