"""What the demo asks: chat and exam questions, code, maths, medicine and law, easy and hard, as real traffic mixes."""

PROMPTS = (
    "What is the capital of Australia?",
    "Write a Python function that merges overlapping intervals, and explain its complexity.",
    "A baker sells 14 loaves at $3 each and 9 cakes at $12 each, and pays $55 for flour and butter. How much does she "
    "earn that day?",
    "Which organelle makes most of a cell's ATP?\nA. Nucleus\nB. Ribosome\nC. Mitochondrion\nD. Golgi apparatus",
    "Translate 'Where is the nearest pharmacy?' into Spanish.",
    "A train leaves at 9:40 and arrives at 13:05 after two stops of 7 minutes each. How long was it moving?",
    "A 58-year-old has chest pain on exertion that stops within minutes of rest. Which test comes first?\n"
    "A. Resting electrocardiogram\nB. Coronary angiography\nC. Chest radiograph\nD. Lung function test",
    "Give me three names for a small bakery by the sea.",
    "Prove that the square root of 3 is irrational.",
    "Make this politer: 'Send me the report today.'",
    "Omar reads 18 pages a day for 5 days, then twice as many a day until he has finished a book of 306 pages. How "
    "many days does the whole book take him?",
    "Our landlord keeps the deposit because of normal wear of the carpet. Which steps can a tenant take?",
    "What does HTTP status 404 mean?",
    "A seller mails an acceptance on Monday, and the buyer's revocation arrives on Tuesday. Under the mailbox rule, "
    "is there a contract?\nA. No, it was revoked in time\nB. Yes, since Monday\nC. Only if the letter arrives\nD. Only "
    "if it was in writing before",
    "List the planets of the solar system.",
    "A fair die is rolled until two sixes in a row appear. What is the expected number of rolls?",
    "Summarise in one sentence: The meeting moved from Tuesday to Thursday because two people are ill, and the room "
    "stays the same.",
    "A tank holds 240 litres. One pump fills 12 litres a minute, a leak loses 2 litres a minute. How many minutes "
    "until the empty tank is full?",
    "Find the bug: for (int i = 0; i <= n; i++) sum += a[i];",
    "If the price of a good rises by 10 % and the quantity sold falls by 5 %, demand is\nA. elastic\nB. inelastic\n"
    "C. unit elastic\nD. perfectly elastic",
    "Hi! How is your day going?",
    "Which drug interactions matter most for a patient who takes warfarin and starts amiodarone?",
    "Lena has 5 boxes with 24 apples each. She throws away 17 bad ones and shares the rest evenly among her 8 "
    "neighbours, keeping what is left over. How many apples does she keep?",
    "Tell me a short joke about cats.",
)
