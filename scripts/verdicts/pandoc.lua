-- Mathematics as Pandoc finds it: one JSON string a line in, one JSON list of {kind, text} out.
local how = "markdown-yaml_metadata_block-markdown_in_html_blocks+tex_math_single_backslash"
for line in io.lines() do
  local found = pandoc.List()
  local function note(kind) return function(x) found:insert({kind, x.text}) end end
  local doc = pandoc.read(pandoc.json.decode(line, false).text, how)
  local function tex(x) if x.format == "tex" or x.format == "latex" then found:insert({"tex", x.text}) end end
  doc:walk({traverse = "topdown", Math = function(x) found:insert({x.mathtype, x.text}) end,
            RawInline = tex, RawBlock = tex, Code = note("code"), CodeBlock = note("code")})
  print(pandoc.json.encode(found))
end
