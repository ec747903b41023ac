# Adds "Upscale with upframe" to "Send to" of Windows' Explorer. Run it once: powershell -File install-send-to.ps1
# A shortcut starts the program itself. A batch file would run parts of file names that hold & as commands.
$program = (Get-Command upframe.exe -ErrorAction Stop).Source
$folder = [Environment]::GetFolderPath('SendTo')
$shortcut = (New-Object -ComObject WScript.Shell).CreateShortcut((Join-Path $folder 'Upscale with upframe.lnk'))
$shortcut.TargetPath = $program
$shortcut.Arguments = 'upscale'
$shortcut.Save()
