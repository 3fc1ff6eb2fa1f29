# Runs a deployment script with the functions by which it talks to the server.
param([string]$TakoScript)
$ErrorActionPreference = 'Stop'
$TakoOwn = Split-Path -Parent $MyInvocation.MyCommand.Path
$OctopusParameters = New-Object 'System.Collections.Generic.Dictionary[string,string]' ([System.StringComparer]::OrdinalIgnoreCase)
(Get-Content -Raw -LiteralPath (Join-Path $TakoOwn 'variables.json') | ConvertFrom-Json -AsHashtable).GetEnumerator() |
    ForEach-Object { $OctopusParameters[$_.Key] = $_.Value }

function Get-TakoEncoded([string]$value) { [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($value)) }
function Write-TakoLevel([string]$level, $message) {
    [Console]::Out.WriteLine("##octopus[stdout-$level]")
    [Console]::Out.WriteLine([string]$message)
    [Console]::Out.WriteLine('##octopus[stdout-default]')
}
function Set-OctopusVariable([string]$name, [string]$value, [switch]$sensitive) {
    $secret = if ($sensitive) { " sensitive='$(Get-TakoEncoded 'True')'" } else { '' }
    [Console]::Out.WriteLine("##octopus[setVariable name='$(Get-TakoEncoded $name)' value='$(Get-TakoEncoded $value)'$secret]")
}
# The agent hands out files of the script's own directory alone, so an artifact is
# linked there, or copied where it cannot be.
function New-OctopusArtifact([Parameter(Mandatory)][string]$Path, [string]$Name) {
    $full = (Resolve-Path -LiteralPath $Path).Path
    if (-not (Test-Path -LiteralPath $full -PathType Leaf)) { throw "The artifact $full is no file." }
    if (-not $Name) { $Name = Split-Path -Leaf $full }
    $kept = [IO.Path]::Combine($TakoOwn, 'artifacts', [Guid]::NewGuid().ToString('n'))
    [void][IO.Directory]::CreateDirectory($kept)
    $kept = [IO.Path]::Combine($kept, 'file')
    try { [void](New-Item -ItemType HardLink -Path $kept -Target $full -ErrorAction Stop) }
    catch { [IO.File]::Copy($full, $kept) }
    $length = ([IO.FileInfo]$kept).Length
    [Console]::Out.WriteLine("##octopus[createArtifact path='$(Get-TakoEncoded $kept)' name='$(Get-TakoEncoded $Name)' length='$(Get-TakoEncoded $length)']")
}
function Update-Progress([int]$percentage, [string]$message = '') {
    [Console]::Out.WriteLine("##octopus[progress percentage='$(Get-TakoEncoded $percentage)' message='$(Get-TakoEncoded $message)']")
}
function Fail-Step([string]$message) {
    if ($message) { [Console]::Out.WriteLine("##octopus[resultMessage message='$(Get-TakoEncoded $message)']") }
    exit 1
}
function Write-Highlight($message) { Write-TakoLevel 'highlight' $message }
function Write-Wait($message) { Write-TakoLevel 'wait' $message }
function Write-Verbose($message) { Write-TakoLevel 'verbose' $message }
function Write-Warning($message) { Write-TakoLevel 'warning' $message }
# Hides a value in the lines of the log that come after this one, of both streams.
function Hide-OctopusValue([string]$value) {
    $message = "##octopus[mask value='$(Get-TakoEncoded $value)']"
    [Console]::Out.WriteLine($message)
    [Console]::Error.WriteLine($message)
}

Get-ChildItem -Path (Join-Path $TakoOwn 'modules') -Filter '*.psm1' -ErrorAction SilentlyContinue | Sort-Object Name |
    ForEach-Object { Import-Module -Name $_.FullName -Force -Global -DisableNameChecking }

$TakoArguments = Get-Content -Raw -LiteralPath (Join-Path $TakoOwn 'arguments.txt') -ErrorAction SilentlyContinue
$global:LASTEXITCODE = 0
Invoke-Expression ". '$($TakoScript -replace "'", "''")' $TakoArguments"
exit $LASTEXITCODE
