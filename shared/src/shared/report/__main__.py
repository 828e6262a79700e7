from shared.report.build import main

raise SystemExit(main())
