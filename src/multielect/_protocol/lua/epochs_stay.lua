-- Stands before the scripts that end terms, where epochs are kept for ever.

-- How many keys an election has here: leader key and epoch key.
local STRIDE = 2

local function let_expire() end

