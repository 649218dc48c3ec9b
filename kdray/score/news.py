"""What both tasks of news summaries share: two solved examples of our own, and where answers to the Lookback Lens
prompt end.
"""

from __future__ import annotations

DEMONSTRATIONS = (
    "Document: The harbour ferry between Norwick and Lanesend will not sail before Thursday. A cracked rudder was "
    "found during a routine inspection on Monday evening, the operator said, and the spare part has to come from "
    "Rotterdam. Some 900 people use the crossing every day. Buses will run around the bay in the meantime, which "
    "takes 50 minutes longer.\n"
    "Summary: A cracked rudder has stopped the ferry between Norwick and Lanesend until Thursday, and buses "
    "replace it.\n\n"
    "Document: Pupils of Ashby Road primary school have grown a pumpkin of 212 kilograms, the heaviest ever shown "
    "at the county fair. The old record, 198 kilograms, had stood for eleven years. The children watered the plant "
    "with rain from the roof of their gym. The seeds will be sold in aid of the school library, headteacher Mona "
    "Field said.\n"
    "Summary: A school's pumpkin of 212 kilograms has broken an eleven-year-old record at the county fair.\n\n"
)

LENS_STOPS = ("#Document#:", "#Question#:", "#Article#:", "Q:", "\\end{code}")  # those of the lens's authors
