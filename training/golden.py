"""Conversations of our own writing whose scores every artefact must reproduce: of many lengths, forms and scripts.

No prompt of any data set is among them.
"""

from scorer_service.preprocess import Role, Turn

Conversation = tuple[Turn, ...]


def conversations() -> list[Conversation]:
    """All of them, always in the same order."""
    single: list[Conversation] = [(Turn(Role.USER, text),) for text in (*_SHORT, *_EXAMS, *_CHAT, *_CODE, *_SCRIPTS)]
    return [*single, *_long(), *_MULTI_TURN]


_SHORT = (
    "?",
    "hi",
    ".",
    "\u200b",  # no token at all between the special ones
    "7",
    "ok thanks",
    "   why   ",
    "[CLS] [SEP] [PAD] [MASK]",
    "NO CAPITALS PLEASE",
    "\n\n\ttabs\tand\n\nlines\n",
)

_EXAMS = (
    "Which planet of an imaginary system with three suns has the longest night?\nA. Oru\nB. Vel\nC. Tamis\nD. None of "
    "these\nAnswer:",
    "A copper rod and a glass rod of equal size lie in the sun. Which one burns the hand that picks it up, and why?",
    "The signalman, not the driver, sets the points. Which of the following statements is NOT true?\nA) The driver "
    "sets the points.\nB) The signalman sets the points.\nC) Points can be set.\nD) Both B and C",
    "A baker sells 14 rolls per hour and bakes 96 before opening. If the shop opens for 6 hours, how many rolls are "
    "left at closing time?",
    "Nadia saves $3.50 every week. After 8 weeks she spends half of her savings on a kite. How much money does she "
    "have left?",
    "Let f(x) = x^3 - 6x^2 + 11x - 6. Find all real x with f(x) = 0 and prove that there are no others.",
    "Prove that the sum of the first n odd numbers is n^2.",
    "If 2/3 of a tank is filled in 40 minutes, the whole tank is filled in _____ minutes.",
    "Statement 1 | Every bounded sequence converges. Statement 2 | Every convergent sequence is bounded.\nA. True, "
    "True\nB. False, False\nC. True, False\nD. False, True",
    "$\\int_0^{\\pi} \\sin^2(x)\\,dx = ?$ Give the exact value and one numerical check to 4 digits.",
    "A tenant paints the door of a rented house without asking. The lease is silent on paint. Does the landlord have a "
    "claim, and if so, which? Discuss briefly.",
    "Balance: C3H8 + O2 -> CO2 + H2O, then give the mass of water from 22 g of propane.",
)

_CHAT = (
    "Write a four-line poem about a railway switch that is tired of choosing.",
    "Please rewrite this more politely: 'Your parcel is late because you typed the wrong address.'",
    "I have two cats, a small flat and not much time. Should I get a dog?",
    "Explain to a ten-year-old why the moon follows the car.",
    "Give me a plan for a week in a city that I have never seen, with one museum at most.",
    "Summarize the idea of a cost threshold in three sentences, without the words 'cost' and 'threshold'.",
    'You are a strict editor. Say what is wrong with: "Me and him goes to the station, it were raining."',
    "Can you help me name a bakery? It is next to a river, run by twins, and only open at night.",
    "Translate to French and German: The last train leaves at midnight.",
    "what is a good birthday present for my dad, he is 70 and likes maps",
    "List five risks of moving a database on a Friday, most likely first.",
    "Compare tea and coffee as a physicist, a poet and an accountant would.",
)

_CODE = (
    "def greet(name):\n    return f'hello {name}'\n\nWhat does greet('Ada') return?",
    "Write a Python function that merges two sorted lists without using sort(). Include tests.",
    "SELECT tenant, SUM(nanos) FROM ledger GROUP BY tenant HAVING SUM(nanos) > 10;\n-- why is this slow?",
    '```rust\nfn main() { let v = vec![1, 2, 3]; let w = v; println!("{:?}", v); }\n```\nExplain the error.',
    "for i in range(3):\n    for j in range(i):\n        print(i * j, end=' ')\n# predict the output",
    "bash: find every file larger than 10 MB below the current folder, newest first, as one line",
    '#include <stdio.h>\nint main(void){int a[3]={1,2,3};printf("%d",a[3]);return 0;}',
    "Given a graph G and a node s, implement breadth-first search in Java; state its complexity.",
    '{"model": "small", "messages": [{"role": "user", "content": "nested"}], "n": [1, [2, [3]]]}',
    "Why does 0.1 + 0.2 != 0.3 in JavaScript?",
)

_SCRIPTS = (
    "请用三句话解释什么是道岔。",
    "電車が遅れています。どうすればいいですか?",
    "기차가 언제 출발합니까?",
    "Сколько будет семь умножить на восемь?",
    "ما هو أسرع قطار في العالم؟",
    "Πόσα λεπτά έχει μία ώρα;",
    "Où est la gare, s'il vous plaît ? Déjà vu, naïve, cœur.",
    "ट्रेन कब आएगी?",
    "🚂🚃🚃🚃 how many wagons? 🤔",
    "e\u0301 and \u00e9 look alike; are they equal?",
    "𝕬𝖓 𝖔𝖉𝖉 𝖋𝖔𝖓𝖙, and ﬁ ligatures",
    "mixed 混合 текст with ½ of everything ≈ 3.14 ± 0.01 °C",
)

_MULTI_TURN: tuple[Conversation, ...] = (
    (
        Turn(Role.SYSTEM, "You answer in one word."),
        Turn(Role.USER, "Is water wet?"),
    ),
    (
        Turn(Role.USER, "My name is Ilse."),
        Turn(Role.ASSISTANT, "Nice to meet you, Ilse."),
        Turn(Role.USER, "What did I say my name was, and how many letters has it?"),
    ),
    (
        Turn(Role.USER, "Solve 3x + 4 = 19."),
        Turn(Role.ASSISTANT, "x = 5"),
        Turn(Role.USER, "   "),
    ),
    (
        Turn(Role.USER, "What is the weather at the station?"),
        Turn(Role.ASSISTANT, "I will look it up."),
        Turn(Role.TOOL, '{"celsius": 4, "rain": true}'),
    ),
)


def _long() -> list[Conversation]:
    """Texts around the usual windows: 256 and 512 tokens, and far beyond any."""
    verse = "The points are set, the signal falls, and on the line a whistle calls. "
    ledger = "On day {0} tenant {1} spent {2} dollars; how many are left of {3}? "
    sums = "".join(ledger.format(day, day % 7, 13 * day % 101, 500 + day) for day in range(40))
    texts = (verse * 17, verse * 36, sums, verse * 700)
    return [(Turn(Role.USER, text),) for text in texts]
