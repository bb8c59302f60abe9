"""The folder of one audit: what was requested, what was found, and what is needed to resume.

config.json      what determines the values, and the number of the format; a folder with another config is refused
request.json     the request as it was made last: model, options, images
images.json      the names of the images that were requested last, in order, and when
results.jsonl    one row per image, appended once all else of it is written. An image that failed, or whose name or
                 place changed, gets another row when the audit is resumed; its last row counts
tensors/         one safetensors file per picture: q, the condition and the samples (``Result.load`` reads it)
samples/         one PNG per picture: the image itself, then its samples, one row per guidance scale; both in 256
                 folders by the first two digits of their names, because file systems handle a million in one badly
manifest.json    what the audit was made of, and the SHA-256 of the files above; written when a run ends
.lock            held by the run that writes here; the system releases it, however the run ends. Where the file system
                 has no flock, .lock-holder names the process, and a dead one of this machine does not count

Files are written beside their place, flushed to the disk and moved there; the row comes last and holds the SHA-256 of
the tensors. :mod:`.reading` needs neither torch nor any other heavy import until a result is looked at.
"""

from invmm_eval.audits.folder.reading import Progress as Progress
from invmm_eval.audits.folder.reading import Record as Record
from invmm_eval.audits.folder.reading import read as read
