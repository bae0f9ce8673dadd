"""The ledger's steps as one Lua script, each atomic on the server.

All keys of a tenant carry its hash tag, so that they lie in one slot of a cluster; all are passed in KEYS:

    KEYS[1] windows       hash: `<period>:<start>:s` spent, `:r` reserved, `:c` the limit last enforced
    KEYS[2] reservations  hash: id -> state|worst|estimate|charged|hour|day|month|expires_ms|model
    KEYS[3] due           sorted set: id by when an open one expires and a closed one is forgotten, in ms
    KEYS[4] usage         hash: `<day>|<model>|<source>|<what>`
    KEYS[5] book          hash: `born`, and `<cause>:count`, `<cause>:amount` of overruns

*Digits*: Lua here computes in doubles, and its tostring keeps 14 digits: 100000000000124 comes back as
1.0000000000012e+14. So money is added by HINCRBY from the decimal strings it came in; numbers are only compared, which
is exact below 2^53, and written by `%.0f`, which keeps every digit.

*Time* is the server's TIME; `ARGV[2]` shifts it, for tests of window ends.
"""

SCRIPT = r"""
local W, R, Q, U, B = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local op = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local SWEEP = 128

local function digits(number) return string.format('%.0f', number) end

local function negative(amount)
  if amount == '0' then return '0' end
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  return '-' .. amount
end

local function fields(starts)
  local names = {}
  for p = 1, 3 do
    local base = (p - 1) .. ':' .. starts[p] .. ':'
    names[#names + 1] = base .. 's'
    names[#names + 1] = base .. 'r'
    names[#names + 1] = base .. 'c'
  end
  return names
end

local function accounts(starts) return redis.call('HMGET', W, unpack(fields(starts))) end

local function add(starts, spent, reserved)
  for p = 1, 3 do
    local base = (p - 1) .. ':' .. starts[p] .. ':'
    if spent ~= '0' then redis.call('HINCRBY', W, base .. 's', spent) end
    if reserved ~= '0' then redis.call('HINCRBY', W, base .. 'r', reserved) end
  end
end

local function book(day, model, source, calls, cost, tokens)
  local base = day .. '|' .. model .. '|' .. source .. '|'
  redis.call('HINCRBY', U, base .. 'calls', calls)
  if cost ~= '0' then redis.call('HINCRBY', U, base .. 'cost', cost) end
  for name, count in pairs(tokens) do
    if count ~= '0' then redis.call('HINCRBY', U, base .. name, count) end
  end
end

local function overrun(cause, excess)
  redis.call('HINCRBY', B, cause .. ':count', 1)
  redis.call('HINCRBY', B, cause .. ':amount', digits(excess))
end

local function read(id)
  local text = redis.call('HGET', R, id)
  if not text then return nil end
  local part = {}
  for piece in string.gmatch(text, '[^|]+') do part[#part + 1] = piece end
  return {state = part[1], worst = part[2], estimate = part[3], charged = part[4],
          starts = {part[5], part[6], part[7]}, expires = part[8], model = part[9]}
end

local function write(id, entry, due)
  redis.call('HSET', R, id, table.concat({entry.state, entry.worst, entry.estimate, entry.charged, entry.starts[1],
    entry.starts[2], entry.starts[3], entry.expires, entry.model}, '|'))
  redis.call('ZADD', Q, due, id)
end

local function is_open(entry) return entry.state == 'open' or entry.state == 'started' end

local function sweep(retention)
  local expired = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', Q, '-inf', digits(now), 'LIMIT', 0, SWEEP)) do
    local entry = read(id)
    if entry == nil or not is_open(entry) then
      redis.call('HDEL', R, id)
      redis.call('ZREM', Q, id)
    else
      expired = expired + 1
      if entry.state == 'started' then
        entry.state, entry.charged = 'expired', entry.estimate
        book(entry.starts[2], entry.model, 'expired', 1, entry.estimate, {})
      else
        entry.state = 'released'
      end
      add(entry.starts, entry.charged, negative(entry.worst))
      write(id, entry, digits(now + retention))
    end
  end
  return expired
end

local function forget_windows(kept)
  for _, name in ipairs(redis.call('HKEYS', W)) do
    local period, start = string.match(name, '^(%d):(%d+):')
    if tonumber(start) * 1000 < now - kept[tonumber(period) + 1] then redis.call('HDEL', W, name) end
  end
end

-- reserve: born, retention, id, model, worst, estimate, started, lifetime, 3 starts, hour's end, 3 limits, 3 times kept
local function reserve()
  local born, retention, id = ARGV[3], tonumber(ARGV[4]), ARGV[5]
  local starts = {ARGV[11], ARGV[12], ARGV[13]}
  local known_born = redis.call('HGET', B, 'born')
  if born ~= '' and born ~= known_born then return {'lost'} end
  if now < starts[1] * 1000 or now >= ARGV[14] * 1000 then return {'clock', digits(now)} end
  if not known_born then
    known_born = digits(now) .. '-' .. id
    redis.call('HSET', B, 'born', known_born)
  end
  sweep(retention)
  local entry = read(id)
  if entry == nil then
    local held = accounts(starts)
    if not held[2] then forget_windows({tonumber(ARGV[18]), tonumber(ARGV[19]), tonumber(ARGV[20])}) end
    local worst = tonumber(ARGV[7])
    local tightest, least = 0, nil
    for p = 1, 3 do
      local limit, cap = ARGV[14 + p], held[3 * p] or ''
      local committed = tonumber(held[3 * p - 2] or '0') + tonumber(held[3 * p - 1] or '0')
      if limit ~= cap then redis.call('HSET', W, (p - 1) .. ':' .. starts[p] .. ':c', limit) end
      if limit ~= '' then
        local left = tonumber(limit) - committed
        if left < 0 and (cap == '' or tonumber(cap) > tonumber(limit)) then overrun('lowered_limit', -left) end
        if worst > left and (least == nil or left < least) then tightest, least = p, left end
      end
    end
    if tightest > 0 then return {'refused', digits(now), tightest, unpack(accounts(starts))} end
    add(starts, '0', ARGV[7])
    entry = {state = ARGV[9] == '1' and 'started' or 'open', worst = ARGV[7], estimate = ARGV[8], charged = '0',
             starts = starts, expires = digits(now + ARGV[10]), model = ARGV[6]}
    write(id, entry, entry.expires)
  end
  return {'granted', known_born, entry.worst, entry.estimate, entry.expires, entry.model, entry.starts[1],
          unpack(accounts(entry.starts))}
end

-- mark: id
local function mark()
  local entry = read(ARGV[3])
  if entry == nil or not is_open(entry) or tonumber(entry.expires) <= now then return 0 end
  entry.state = 'started'
  write(ARGV[3], entry, entry.expires)
  return 1
end

-- release: id, retention
local function release()
  local entry = read(ARGV[3])
  if entry == nil or not is_open(entry) then return 0 end
  entry.state = 'released'
  add(entry.starts, '0', negative(entry.worst))
  write(ARGV[3], entry, digits(now + ARGV[4]))
  return 1
end

-- settle: id, retention, cost, source, model, worst, estimate, expires, 3 starts, 5 token counts
local function settle()
  local id, cost, source = ARGV[3], ARGV[5], ARGV[6]
  -- Forgotten or lost; the money is gone all the same.
  local entry = read(id) or {state = 'released', worst = ARGV[8], estimate = ARGV[9], charged = '0',
    starts = {ARGV[11], ARGV[12], ARGV[13]}, expires = ARGV[10], model = ARGV[7]}
  if entry.state == 'settled' then
    return {'repeated', entry.charged, 0, '', '0', unpack(accounts(entry.starts))}
  end
  local late = not is_open(entry)
  local growth = tonumber(cost) - tonumber(entry.charged)
  add(entry.starts, cost, late and '0' or negative(entry.worst))
  if entry.charged ~= '0' then add(entry.starts, negative(entry.charged), '0') end
  if not late then growth = growth - tonumber(entry.worst) end
  if entry.state == 'expired' then book(entry.starts[2], entry.model, 'expired', -1, negative(entry.charged), {}) end
  book(entry.starts[2], entry.model, source, 1, cost, {input = ARGV[14], cached_input = ARGV[15],
    cache_write = ARGV[16], output = ARGV[17], reasoning = ARGV[18]})
  local change = digits(tonumber(cost) - tonumber(entry.charged))
  entry.state, entry.charged = 'settled', cost
  write(id, entry, digits(now + ARGV[4]))
  local held = accounts(entry.starts)
  local excess = 0
  for p = 1, 3 do
    local cap = held[3 * p]
    if cap and cap ~= '' then
      local above = tonumber(held[3 * p - 2] or '0') + tonumber(held[3 * p - 1] or '0') - tonumber(cap)
      excess = math.max(excess, math.min(growth, above))
    end
  end
  if excess > 0 then overrun(late and 'late_settle' or 'above_reservation', excess) end
  return {'settled', cost, late and 1 or 0, change, digits(excess), unpack(held)}
end

if op == 'reserve' then return reserve() end
if op == 'mark' then return mark() end
if op == 'release' then return release() end
if op == 'settle' then return settle() end
if op == 'expire' then return sweep(tonumber(ARGV[3])) end
-- balances: retention, 3 starts, hour's end
if now < ARGV[4] * 1000 or now >= ARGV[7] * 1000 then return {'clock', digits(now)} end
sweep(tonumber(ARGV[3]))
return {'balances', unpack(accounts({ARGV[4], ARGV[5], ARGV[6]}))}
"""

PUT_DOCUMENT = r"""
-- KEYS[1]: the document. ARGV: expected version, body, lifetime in ms or ''.
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', version + 1), 'body', ARGV[2])
if ARGV[3] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
