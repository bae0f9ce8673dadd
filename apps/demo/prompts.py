"""What the demo asks: short and long, easy and hard, of the kinds that real traffic has."""

PROMPTS = (
    "What is the capital of Australia?",
    "Write a Python function that merges overlapping intervals, and explain its complexity.",
    "Translate 'Where is the nearest pharmacy?' into Spanish.",
    "A train leaves at 9:40 and arrives at 13:05 after two stops of 7 minutes each. How long was it moving?",
    "Hi! How is your day going?",
    "Which drug interactions matter most for a patient who takes warfarin and starts amiodarone?",
    "Give me three names for a small bakery by the sea.",
    "Prove that the square root of 3 is irrational.",
    "Make this politer: 'Send me the report today.'",
    "Our landlord keeps the deposit because of normal wear of the carpet. Which steps can a tenant take?",
    "What does HTTP status 404 mean?",
    "Why does this SQL run slowly, and which index helps? SELECT user_id, max(created_at) FROM events "
    "WHERE kind = 'login' AND created_at > now() - interval '30 days' GROUP BY user_id;",
    "List the planets of the solar system.",
    "Compare optimistic and pessimistic locking for a booking service with few conflicts, and recommend one.",
    "Summarise in one sentence: The meeting moved from Tuesday to Thursday because two people are ill, and the room "
    "stays the same.",
    "A fair die is rolled until two sixes in a row appear. What is the expected number of rolls?",
    "How do I reset my password?",
    "A 58-year-old has chest pain on exertion that stops within minutes of rest. What is the likely cause, and which "
    "test comes first?",
    "What is 15 % of 80?",
    "Find the bug: for (int i = 0; i <= n; i++) sum += a[i];",
    "Tell me a short joke about cats.",
    "Explain the difference between a patent, a trademark and a copyright to a founder who has built a new app.",
    "Which is heavier, a kilogram of iron or a kilogram of feathers?",
    "Design an experiment that tells whether a new checkout page raises sales, and say how many visitors it needs for "
    "a lift from 4 % to 4.4 %.",
)
