from upframe.service.child.main import main

main()
