"""What goes wrong in training and evaluation by no fault of the code.

UsageError               options of a command that do not fit; it exits 2

TrainingError
├── AdaptError           the artefact or the labels cannot be adapted from    (adapt)
├── CorpusError          a data file is missing or is not what it should be   (corpus)
├── EncoderMissingError  the encoder's package is absent or altered           (minilm)
├── ExportError          the artefact must not be shipped                     (export)
└── SettingError         `--set` names no setting, or its value does not fit  (train)
"""


class TrainingError(Exception):
    """The message is one line that names what is wrong and the mend; commands print it and exit 1."""


class UsageError(Exception):
    """Options that cannot be used together, or a value out of range. One line with the mend."""
